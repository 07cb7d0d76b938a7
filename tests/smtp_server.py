"""An SMTP server for tests, on aiosmtpd (Debian: python3-aiosmtpd), with bad modes:

    python3 smtp_server.py DIRECTORY PORT [--no-smtputf8]

It prints its port, and writes each mail that it accepts into DIRECTORY, as NUMBER.eml. The file
DIRECTORY/mode has the mode, which is read at each command:

    ok        accepts mails, and any login
    535       rejects logins
    530       requires a login
    550       rejects recipients; the reply has the address
    451, 554  rejects the content; the reply has the address
    cut       accepts the mail, and closes the connection in place of a reply
    stall     accepts the mail, and never replies
"""

import asyncio
import pathlib
import sys

from aiosmtpd.smtp import SMTP, AuthResult

directory = pathlib.Path(sys.argv[1])
number = len(list(directory.glob("*.eml")))


def mode():
    return (directory / "mode").read_text()


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        if mode() == "530":
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if mode() == "550":
            return f"550 5.1.1 <{address}>: no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        global number
        to = " ".join(envelope.rcpt_tos)
        if mode() == "451":
            return f"451 4.3.0 <{to}>: try again later"
        if mode() == "554":
            return f"554 5.7.1 <{to}>: refused"
        number += 1
        part = directory / f"{number}.part"
        part.write_bytes(f"X-Rcpt-To: {to}\r\n".encode() + envelope.original_content)
        part.rename(part.with_suffix(".eml"))
        if mode() == "cut":
            server.transport.abort()
            await asyncio.sleep(3600)
        if mode() == "stall":
            await asyncio.sleep(3600)
        return "250 2.0.0 OK"


def login(server, session, envelope, mechanism, data):
    return AuthResult(success=mode() != "535", handled=False)


def connection():
    return SMTP(
        Handler(),
        hostname="localhost",
        enable_SMTPUTF8="--no-smtputf8" not in sys.argv,
        authenticator=login,
        auth_require_tls=False,
    )


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", int(sys.argv[2]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
