"""The SMTP catcher of `amana up`: takes every mail, keeps the last ones as .eml files."""

import contextlib
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from service.cli.ports import check_free, find_free_port
from service.cli.var import make_private

KEPT_MAILS = 500
MAIL_BYTES = 5_000_000


class Catcher:
    """What aiosmtpd calls for each mail: writes it into the folder, drops the oldest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = count()

    async def handle_DATA(  # noqa: N802 - the name aiosmtpd looks for
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Keep one mail."""
        mail = self.folder / f"{time.time_ns():020d}-{next(self.numbers):06d}.eml"
        mail.touch(0o600)
        mail.write_bytes(as_file(envelope))
        for old in sorted(self.folder.glob("*.eml"))[:-KEPT_MAILS]:
            old.unlink(missing_ok=True)
        return "250 kept"


def as_file(envelope: Envelope) -> bytes:
    """Return a mail with its envelope as two headers before its own."""
    content = envelope.original_content or b""
    to = ", ".join(envelope.rcpt_tos)
    return f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {to}\r\n".encode() + content


@contextlib.contextmanager
def catching(folder: Path, port: int = 0) -> Iterator[str]:
    """Catch mails on a port of the loopback (0: any free one); gives the SMTP_URL."""
    make_private(folder)
    port = port or find_free_port()
    check_free(port, "mail")  # the controller itself would be silent about it for long
    controller = Controller(
        Catcher(folder), hostname="127.0.0.1", port=port, data_size_limit=MAIL_BYTES
    )
    controller.start()
    try:
        yield f"smtp://127.0.0.1:{port}"
    finally:
        controller.stop()
