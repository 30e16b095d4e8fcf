"""Plain clients of the stand-in: urllib, smtplib and the openssl command.

They are what the stand-in itself is tested with, and may serve wherever a
test needs a client that shares nothing with relay365.
"""

import base64
import json
import smtplib
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

HOST = "smtp.office365.com"
SCOPE = "https://outlook.office365.com/.default"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None


def post(sim, form, tenant, headers=(), timeout=10):
    """(status, headers, JSON or bytes) of one token request."""
    data = form if isinstance(form, bytes) else \
        urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(
        sim.token_endpoint(tenant), data, dict(headers))
    opener = urllib.request.build_opener(
        NoRedirect, urllib.request.HTTPSHandler(
            context=ssl.create_default_context(cafile=sim.ca)))
    try:
        answer = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = answer.read()
        try:
            body = json.loads(body)
        except ValueError:
            pass
        return answer.status, answer.headers, body


def b64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def assertion(made, audience, client_id, alg="PS256", header=None, key=None,
              salt="32", **claims):
    """A signed client assertion; `made` is what credentials() returned.

    Changes to header and claims (None leaves one out), another key or salt
    length show what is refused.
    """
    now = int(time.time())
    thumbprint = "x5t#S256" if alg == "PS256" else "x5t"
    header = {"alg": alg, "typ": "JWT", thumbprint: made[thumbprint],
              **(header or {})}
    claims = {"aud": audience, "iss": client_id, "sub": client_id,
              "jti": str(uuid.uuid4()), "nbf": now, "exp": now + 600,
              **claims}
    text = ".".join(b64url(json.dumps(
        {k: v for k, v in part.items() if v is not None}).encode())
        for part in (header, claims))
    command = ["openssl", "dgst", "-sha256", "-sign",
               key or made["private_key"]]
    if alg == "PS256":
        command += ["-sigopt", "rsa_padding_mode:pss",
                    "-sigopt", "rsa_pss_saltlen:" + salt]
    signature = subprocess.run(command, input=text.encode(), check=True,
                               stdout=subprocess.PIPE).stdout
    return text + "." + b64url(signature)


class Client(smtplib.SMTP):
    """smtplib that takes smtp.office365.com to be where the stand-in is."""

    def __init__(self, sim, tls=True):
        self.sim = sim
        super().__init__(timeout=20, local_hostname="gateway.contoso.com")
        self._host = HOST               # the name TLS will check
        code, self.greeting = self.connect(HOST, sim.smtp_port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, self.greeting)
        self.ehlo()
        if tls:
            self.starttls(context=ssl.create_default_context(cafile=sim.ca))
            self.ehlo()

    def _get_socket(self, host, port, timeout):
        return socket.create_connection((self.sim.smtp_address, port),
                                        timeout)

    def xoauth2(self, user, token):
        """The two-step form; the last reply."""
        code, text = self.docmd("AUTH", "XOAUTH2")
        return self.docmd(blob(user, token)) if code == 334 else (code, text)


def blob(user, token):
    text = "user=%s\1auth=Bearer %s\1\1" % (user, token)
    return base64.b64encode(text.encode()).decode()


def message(sender, size=0, extra=""):
    """A message of about `size` octets, with a line that needs stuffing."""
    return ("From: Printer <%s>\r\nTo: a@example.org\r\nSubject: x\r\n"
            "Message-ID: <1@contoso.com>\r\n%s\r\n.dot\r\n%s\r\n" % (
                sender, extra, ("x" * 76 + "\r\n") * (size // 78))).encode()
