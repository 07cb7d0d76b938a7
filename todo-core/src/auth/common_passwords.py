#!/usr/bin/env python3
"""Writes common_passwords.txt and its licence from the npm package below: the passwords that can
meet the rules of a new one (8 characters, two letters to be of either case, a digit), in lower
case, sorted by their bytes.

    python3 todo-core/src/auth/common_passwords.py
"""

import base64, hashlib, io, json, pathlib, re, subprocess, tarfile, tempfile

PACKAGE = "@zxcvbn-ts/language-common@4.1.3"
SHA512 = "g2bg4skmlJG9aJqC/nWziZzgYpSe/f3rKeGobrkdFiOrfZVFqqzUgC6BUQWuX54Sua9j0Jxxt+1bf4f/Mal1Kg=="

HERE = pathlib.Path(__file__).parent


def package():
    with tempfile.TemporaryDirectory() as directory:
        command = ["npm", "pack", "--json", "--pack-destination", directory, PACKAGE]
        packed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        data = pathlib.Path(directory, packed[0]["filename"]).read_bytes()
    found = base64.b64encode(hashlib.sha512(data).digest()).decode()
    assert found == SHA512, f"the package has the checksum {found}"
    return tarfile.open(fileobj=io.BytesIO(data))


def is_usable(word):
    letters = sum(character.isalpha() for character in word)
    return 8 <= len(word) <= 128 and letters >= 2 and re.search("[0-9]", word)


def main():
    tar = package()
    read = lambda name: tar.extractfile(f"package/{name}").read()
    words = {word.lower() for word in json.loads(read("src/passwords.json"))}
    lines = sorted((word.encode() for word in words if is_usable(word)))
    (HERE / "common_passwords.txt").write_bytes(b"".join(line + b"\n" for line in lines))
    (HERE / "common_passwords.LICENSE").write_bytes(read("LICENSE.txt"))
    print(len(lines), "passwords")


main()
