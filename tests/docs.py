#!/usr/bin/env python3
"""Runs the blocks of shell of a page, and compares their output: see docs.sh."""

import json
import re
import subprocess
import sys

END = "\x1e"  # printed after each block


def differs(expected, actual, at=""):
    """The first difference, or None. … in an expected text is any text."""
    if isinstance(expected, str) and isinstance(actual, str):
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        return None if re.fullmatch(pattern, actual, re.S) else f"{at}: {actual!r}"
    if type(expected) is not type(actual):
        return f"{at}: {actual!r}"
    if isinstance(expected, dict):
        if expected.keys() != actual.keys():
            return f"{at}: members {sorted(actual)}"
        pairs = [(expected[name], actual[name], f"{at}/{name}") for name in expected]
    elif isinstance(expected, list):
        if len(expected) != len(actual):
            return f"{at}: {len(actual)} items"
        pairs = [(one, other, f"{at}/{i}") for i, (one, other) in enumerate(zip(expected, actual))]
    else:
        return None if expected == actual else f"{at}: {actual!r}"
    return next(filter(None, (differs(*pair) for pair in pairs)), None)


def fences(page):
    """The blocks of shell and JSON."""
    with open(page, encoding="utf-8") as file:
        return re.findall(r"^```(sh|json)\n(.*?)^```$", file.read(), re.M | re.S)


def main(page, first):
    blocks = []
    if page != first:
        blocks.append([next(text for language, text in fences(first) if language == "sh"), None])
    begin = len(blocks)
    for language, text in fences(page):
        if language == "sh":
            blocks.append([text, None])
        elif len(blocks) == begin or blocks[-1][1] is not None:
            sys.exit(f"{page}: a block of JSON without a block of shell before it:\n{text}")
        else:
            blocks[-1][1] = json.loads(text)
    if len(blocks) == begin:
        sys.exit(f"{page} has no blocks of shell")
    script = "".join(f"{text}printf '\\036'\n" for text, _ in blocks)
    ran = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, timeout=120)
    outputs = ran.stdout.split(END)
    for (text, expected), output in zip(blocks, outputs):
        if expected is None:
            continue
        try:
            difference = differs(expected, json.loads(output))
        except ValueError:
            difference = "no JSON"
        if difference:
            sys.exit(f"{page}: {difference}\n{text}printed\n{output}\n{ran.stderr}")
    if ran.returncode:
        failed = blocks[len(outputs) - 1][0]
        sys.exit(f"{page}: a block failed\n{failed}printed\n{outputs[-1]}\n{ran.stderr}")
    print(f"{page}: {len(blocks) - begin} blocks ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
