"""A request as three programs: curl, JavaScript and Python, from one description of it.

Text that begins with `$` is read from the environment of whoever runs the program, so that what
is shown runs as it stands once AMANA_URL, AMANA_KEY and the ids that it names are set.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

URL, KEY = "$AMANA_URL", "$AMANA_KEY"
FROM_ENVIRONMENT = re.compile(r"\$([A-Z][A-Z_]*)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One request that works: where to, and with what."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None

    @property
    def target(self) -> str:
        """The path with its query; the parts of both may begin with `$`."""
        parts = (part if part.startswith("$") else quote(part) for part in self.path.split("/"))
        asked = f"?{urlencode(self.query, safe='$')}" if self.query else ""
        return "/".join(parts) + asked

    @property
    def all_headers(self) -> dict[str, str]:
        """Every header but the key's."""
        typed = {"Content-Type": "application/json"} if self.body is not None else {}
        return {**typed, **self.headers}


def curl(sample: Sample) -> str:
    """For a shell. A body that names the environment comes from a here-document, which reads it."""
    method = "" if sample.method == "GET" else f"-X {sample.method} "
    lines = [f'curl -sS --fail-with-body {method}"{URL}{sample.target}"']
    lines += [f'-H "Authorization: Bearer {KEY}"']
    lines += [f"-H {shlex.quote(f'{name}: {text}')}" for name, text in sample.all_headers.items()]
    if sample.body is None:
        return " \\\n  ".join(lines)
    body = json.dumps(sample.body, ensure_ascii=False, indent=2)
    if '"$' in body:
        return " \\\n  ".join([*lines, "-d @- <<BODY"]) + f"\n{body}\nBODY"
    return " \\\n  ".join([*lines, f"-d {shlex.quote(body)}"])


def javascript(sample: Sample) -> str:
    """For Node.js, as a module: fetch."""
    headers = {"Authorization": f"Bearer {KEY}", **sample.all_headers}
    lines = [f"  headers: {_code(headers, _in_javascript, 2)},"]
    if sample.method != "GET":
        lines.insert(0, f'  method: "{sample.method}",')
    if sample.body is not None:
        lines.append(f"  body: JSON.stringify({_code(sample.body, _in_javascript, 2)}),")
    return "\n".join(
        (
            f"const response = await fetch({_in_javascript(URL + sample.target)}, {{",
            *lines,
            "});",
            "if (!response.ok) throw new Error(await response.text());",
            "console.log(JSON.stringify(await response.json(), null, 2));",
        )
    )


def python(sample: Sample) -> str:
    """For Python, with its standard library alone."""
    headers = {"Authorization": f"Bearer {KEY}", **sample.all_headers}
    lines = [f"    {_in_python(URL + sample.target)},", f'    method="{sample.method}",']
    lines.append(f"    headers={_code(headers, _in_python, 4)},")
    if sample.body is not None:
        lines.append(f"    data=json.dumps({_code(sample.body, _in_python, 4)}).encode(),")
    return "\n".join(
        (
            "import json",
            "import os",
            "from urllib.request import Request, urlopen",
            "",
            "request = Request(",
            *lines,
            ")",
            "with urlopen(request) as response:",
            "    print(json.dumps(json.load(response), indent=2))",
        )
    )


def _code(value: Any, say: Callable[[Any], str], step: int, depth: int = 1) -> str:
    """An object of JSON as a literal: `say` writes what is no container."""
    if isinstance(value, Mapping) and value:
        inner, outer = " " * step * (depth + 1), " " * step * depth
        fields = (f"{say(k)}: {_code(v, say, step, depth + 1)}" for k, v in value.items())
        return "{\n" + "".join(f"{inner}{field},\n" for field in fields) + outer + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_code(part, say, step, depth) for part in value) + "]"
    return say(value)


def _in_javascript(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str) or not FROM_ENVIRONMENT.search(value):
        return written
    if FROM_ENVIRONMENT.fullmatch(value):
        return f"process.env.{value[1:]}"
    return f"`{FROM_ENVIRONMENT.sub(_IN_TEMPLATE, value)}`"


def _in_python(value: Any) -> str:
    if not isinstance(value, str):
        return repr(dict(value) if isinstance(value, Mapping) else value)
    written = json.dumps(value, ensure_ascii=False)
    if FROM_ENVIRONMENT.fullmatch(value):
        return f'os.environ["{value[1:]}"]'
    return f"f{FROM_ENVIRONMENT.sub(_IN_F_STRING, written)}" if "$" in value else written


_IN_TEMPLATE = r"${process.env.\1}"
_IN_F_STRING = r"{os.environ['\1']}"

LANGUAGES: Mapping[str, tuple[str, Callable[[Sample], str]]] = {
    "shell": ("curl", curl),
    "javascript": ("JavaScript", javascript),
    "python": ("Python", python),
}
"""What highlighters call a language -> what people call it, and how it says a request."""


def code_samples(sample: Sample) -> list[dict[str, str]]:
    """The request in every language, as `x-codeSamples` has them."""
    return [
        {"lang": lang, "label": label, "source": write(sample)}
        for lang, (label, write) in LANGUAGES.items()
    ]
