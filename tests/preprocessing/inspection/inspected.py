"""What the corpus of these tests holds beside made-up text."""

EVIL = "Evil \x1b[31mred \u202eback \x9b2J <script>alert(1)</script> the end."
