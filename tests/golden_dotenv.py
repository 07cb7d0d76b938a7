#!/usr/bin/env python3
"""Writes python-dotenv's results for a table of `.env` files to tests/golden/dotenv.json.

The parser of `.env` files (`dotenv.rs`) is tested against that file. Run this again after a change
of the table, with this version of python-dotenv:

    pip install python-dotenv==1.2.2 && python3 tests/golden_dotenv.py

With `--random N` it prints the results of N random files instead, for a manual comparison.
"""

import json
import logging
import os
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from dotenv.main import DotEnv

VERSION = "1.2.2"
ENVIRONMENT = {"OUTSIDE": "from outside", "A": "outer", "EMPTY": ""}

TABLE = [
    # Plain values.
    "",
    "\n\n",
    "A=1",
    "A=1\n",
    "A=1\nB=2\n",
    "A=1\r\nB=2\r\n",
    "A=1\rB=2\r",
    "A=\n",
    "A=",
    "A",
    "A\nB=2\n",
    "A=1\nA=2\n",
    "A=1\nA\n",
    "A=1\nA=\n",
    # Blanks.
    "B=My Todo API\n",
    "B=  My  Todo  API  \n",
    "  B = x\n",
    "\tB\t=\tx\t\n",
    "B=x\u00a0\n",
    "B=\u00a0x\n",
    "B=x\u2003y\n",
    "B=a\x0bb\x0c\n",
    "B=a\x1cb\x1c\n",
    "B= \n",
    "B=\t\nC=2\n",
    # Comments.
    "# B=1\n",
    "  # B=1\nC=2\n",
    "B=1 # two\n",
    "B=1# two\n",
    "B=#1\n",
    "B= #1\n",
    "B= # 1\n",
    "B=a#b #c #d\n",
    "B=a\t#b\n",
    "B=a  #\n",
    "B='1' # two\n",
    "B='1'# two\n",
    "B='a # b'\n",
    'B="a # b" # c\n',
    "B # comment\nC=2\n",
    "#\n#\nB=1",
    # Dollars.
    "B=abc$def\n",
    "B=abc$OUTSIDE\n",
    'B="abc$OUTSIDE"\n',
    "B=$\n",
    "B=$$\n",
    "B=$1 $(date) `date`\n",
    "B=p$ss$w0rd$\n",
    "B=${OUTSIDE}\n",
    "B='${OUTSIDE}'\n",
    'B="${OUTSIDE}"\n',
    "B=x${OUTSIDE}y${OUTSIDE}z\n",
    "B=${MISSING}\n",
    "B=a${MISSING}b\n",
    "B=${MISSING:-other}\n",
    "B=${OUTSIDE:-other}\n",
    "B=${EMPTY:-other}\n",
    "B=${MISSING:-}\n",
    "B=${MISSING:-a b}\n",
    "B=${MISSING:-a:-b}\n",
    "B=${MISSING:other}\n",
    "B=${MISSING-other}\n",
    "B=${MISSING:-${OUTSIDE}}\n",
    "B=${}\n",
    "B=${\n",
    "B=${OUTSIDE\n",
    "B=\\${OUTSIDE}\n",
    "B='\\${OUTSIDE}'\n",
    "B=$${OUTSIDE}\n",
    "B=${ OUTSIDE }\n",
    "C=1\nB=${C}\nC=2\n",
    "B=${C}\nC=1\n",
    "A=inner\nB=${A}\n",
    "C=inner\nB=${C}\n",
    "C\nB=x${C:-d}y\n",
    "C=${OUTSIDE}\nB=${C}${C}\n",
    "B='multi\n${OUTSIDE}\nline'\n",
    # Backslashes and quotes.
    "B=a\\b\\n\\t\\\\c\n",
    "B=it's\n",
    "B=it's it's\n",
    'B=say "hi"\n',
    'B=a"b"c\n',
    "B='it\\'s'\n",
    "B='a\\b\\n\\\\c'\n",
    'B="a\\b\\n\\\\c"\n',
    'B="\\a\\b\\f\\n\\r\\t\\v\\"\\\'\\\\"\n',
    'B="\\x41\\u0041\\1\\q\\$\\#"\n',
    "B='ends with \\'\n",
    'B="ends with \\"\n',
    "B='a\\'b\\'\nC=1\n",
    "B='a\\'\nC='x'\n",
    "B=''\n",
    'B=""\n',
    "B='\"'\n",
    "B=\"'\"\n",
    'B="a\nb"\n',
    "B='a\r\nb'\r\nC=1\r\n",
    'B="-----BEGIN KEY-----\\nabc\\n-----END KEY-----\\n"\n',
    'B="\u00e4\u00f6 \u65e5\u672c \U0001f600"\n',
    "B=\u00e4\u00f6 \u65e5\u672c \U0001f600\n",
    'B="\\\\\\""\n',
    "B=\\\n",
    "B='\\\\'\nC='d'\n",
    # Invalid lines.
    "B='open\nC=2\n",
    'B="open\nC=2\n',
    "B='closed' rest\nC=2\n",
    'B="closed" rest\nC=2\n',
    'B="closed"rest\nC=2\n',
    "B='two\nlines' rest\nC=2\n",
    "two words\nC=2\n",
    "two words=1\nC=2\n",
    "=1\nC=2\n",
    " = 1\nC=2\n",
    "#=1\nC=2\n",
    "A#B=1\nC=2\n",
    "[section]\nC=2\n",
    "B: 1\nC=2\n",
    "- B=1\nC=2\n",
    "if [ x = y ]; then\nC=2\nfi\n",
    "source other.sh\nC=2\n",
    "B+=1\nC=2\n",
    "\n\n\nnot one\nC=2\n",
    "bad one\r\nC=2\r\n",
    # Names.
    "export B=1\n",
    "export  B = 1\n",
    "export\tB=1\n",
    "export B\nC=2\n",
    "export=1\n",
    "export\n",
    "exportB=1\n",
    "export export=1\n",
    "export # x\nC=2\n",
    "'B'=1\n",
    "'B C'=1\n",
    "'B=1\nC=2\n",
    '"B"=1\n',
    "b.c-d=1\n",
    "\u00e4=1\n",
    "B==1\n",
    "B=a=b==\n",
    "B=1;C=2\n",
    "B=1,C=2\n",
    # A file of the Python backend.
    "# Database\nDATABASE_URL=postgresql+asyncpg://u:p$ss@h:5432/db?ssl=require\n\n"
    "SECRET_KEY='abc$def'\nPROJECT_NAME=My Todo API\nDEBUG=True # not in production\n"
    'ALLOWED_ORIGINS=["http://localhost:3000"]\n',
]

PIECES = [
    "A", "B", "C1", "OUTSIDE", "EMPTY", "export ", "=", "=", "=", "\n", "\n", "\n", "\r\n", " ", "  ",
    "\t", "#", "'", "'", '"', '"', "\\", "\\'", '\\"', "\\n", "$", "${A}", "${B}", "${C:-d}", "${",
    "}", ":-", "x", "yz", "\u00e4", "\u00a0", "\x0b", "\x1c", "\u2028", "\x85", ":", ";", "1",
]


class Lines(logging.Handler):
    """Counts the lines that could not be parsed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record):
        self.count += 1


def result(text):
    skipped = Lines()
    logger = logging.getLogger("dotenv.main")
    logger.handlers, logger.propagate = [skipped], False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".env")
        path.write_bytes(text.encode())
        # As in load_dotenv(): the environment takes precedence.
        values = DotEnv(path, encoding="utf-8", override=False).dict()
    values = {name: value for name, value in values.items() if value is not None}
    return {"text": text, "values": values, "unreadable": skipped.count}


def main():
    if version("python-dotenv") != VERSION:
        sys.exit(f"this requires python-dotenv {VERSION}, not {version('python-dotenv')}")
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    if sys.argv[1:2] == ["--random"]:
        table = ["".join(random.choices(PIECES, k=random.randint(1, 24))) for _ in
                 range(int(sys.argv[2]))]
    else:
        table = TABLE
    golden = {"python-dotenv": VERSION, "environment": ENVIRONMENT,
              "files": [result(text) for text in table]}
    text = json.dumps(golden, indent=1, sort_keys=True) + "\n"
    if sys.argv[1:]:
        print(text, end="")
    else:
        Path(__file__).with_name("golden").joinpath("dotenv.json").write_text(text)


if __name__ == "__main__":
    main()
