"""What stops a person's step for a moment: the clock's comes first."""


class DeadlineDue(Exception):
    """The locked escrow has a deadline that is due: its step is committed before the person's."""

    def __init__(self, escrow_id: str) -> None:
        self.escrow_id = escrow_id
        super().__init__(escrow_id)
