"""Keys and certificates of the stand-in, made with the openssl command.

Everything lies in DIR/pki and is made once; only ca.pem, which clients must
trust, lies in DIR itself. The servers' keys are EC because fifty handshakes
at once should not be what a test measures. Client credentials are RSA, since
Entra ID accepts nothing else for PS256 and RS256.
"""

import base64
import functools
import hashlib
import os
import re
import ssl
import subprocess
import tempfile

# One way to sign everything: `openssl ca`, because it alone takes a start and
# an end date in every OpenSSL release, and one certificate must be expired.
CONFIG = """
[ca]
default_ca = sim
[sim]
dir = .
database = index.txt
rand_serial = yes
new_certs_dir = .
certificate = ../ca.pem
private_key = ca.key
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[v3_ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""

SMTP_NAMES = ["DNS:smtp.office365.com", "DNS:outlook.office365.com"]
ENTRA_NAMES = ["DNS:login.microsoftonline.com", "DNS:localhost",
               "IP:127.0.0.1", "IP:::1"]
WRONG_NAMES = ["DNS:mail.example.net"]


def openssl(*args, cwd=None, data=None):
    """Run openssl; its own words are the error, if there is one."""
    done = subprocess.run(["openssl", *args], cwd=cwd, input=data,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise RuntimeError("openssl %s: %s" % (
            args[0], done.stderr.decode("utf-8", "replace").strip()))
    return done.stdout


def _key(pki, name, kind=("EC", "ec_paramgen_curve:P-256")):
    path = os.path.join(pki, name + ".key")
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w"):
        pass                            # never readable by others, not even
    openssl("genpkey", "-algorithm", kind[0], "-pkeyopt", kind[1],
            "-out", path)               # while openssl writes it


def _server(pki, name, names, start="20240101000000Z", end="20491231235959Z"):
    cert = os.path.join(pki, name + ".pem")
    if os.path.exists(cert):
        return
    _key(pki, name)
    openssl("req", "-new", "-config", "ca.cnf", "-key", name + ".key",
            "-subj", "/CN=" + names[0].split(":", 1)[1],
            "-addext", "subjectAltName=" + ",".join(names),
            "-addext", "extendedKeyUsage=serverAuth",
            "-out", name + ".csr", cwd=pki)
    openssl("ca", "-batch", "-notext", "-config", "ca.cnf",
            "-in", name + ".csr", "-out", name + ".pem",
            "-startdate", start, "-enddate", end, cwd=pki)


def _authority(pki, cert, key, common_name):
    if os.path.exists(os.path.join(pki, cert)):
        return
    _key(pki, key)
    openssl("req", "-x509", "-new", "-config", "ca.cnf",
            "-extensions", "v3_ca", "-key", key + ".key", "-days", "9000",
            "-subj", "/CN=" + common_name, "-out", cert, cwd=pki)


def make(directory):
    """Make what is missing of the test CA and the servers' certificates."""
    pki = os.path.join(directory, "pki")
    os.makedirs(pki, mode=0o700, exist_ok=True)
    config = os.path.join(pki, "ca.cnf")
    if not os.path.exists(config):
        with open(config, "w") as f:
            f.write(CONFIG)
        open(os.path.join(pki, "index.txt"), "w").close()
    _authority(pki, "../ca.pem", "ca", "relay365 test CA")
    for server, names in (("smtp", SMTP_NAMES), ("entra", ENTRA_NAMES)):
        _server(pki, server + "-good", names)
        _server(pki, server + "-wrong", WRONG_NAMES)
        _server(pki, server + "-expired", names,
                "20200101000000Z", "20200201000000Z")
        # right name, but signed by itself: nobody who checks accepts it
        _self_signed(pki, server + "-untrusted", names)


def _self_signed(pki, name, names):
    if os.path.exists(os.path.join(pki, name + ".pem")):
        return
    _key(pki, name)
    openssl("req", "-x509", "-new", "-config", "ca.cnf",
            "-key", name + ".key", "-days", "9000",
            "-subj", "/CN=" + names[0].split(":", 1)[1],
            "-addext", "subjectAltName=" + ",".join(names),
            "-out", name + ".pem", cwd=pki)


def contexts(directory, server):
    """TLS server contexts by name: good, wrong, expired, untrusted."""
    found = {}
    for kind in ("good", "wrong", "expired", "untrusted"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        base = os.path.join(directory, "pki", server + "-" + kind)
        context.load_cert_chain(base + ".pem", base + ".key")
        context.sni_callback = _remember_sni
        found[kind] = context
    return found


def _remember_sni(sock, name, _context):
    sock.sni = name


def credentials(directory, name="client", days=365):
    """Make (once) a self-signed RSA 2048 certificate and key for an app.

    Returns the two paths and the thumbprints as a JWT header carries them.
    """
    os.makedirs(directory, exist_ok=True)
    cert = os.path.join(directory, name + ".crt")
    key = os.path.join(directory, name + ".key")
    if not os.path.exists(cert):
        _key(directory, name, ("RSA", "rsa_keygen_bits:2048"))
        openssl("req", "-x509", "-new", "-key", key, "-days", str(days),
                "-subj", "/CN=relay365 " + name, "-out", cert)
    with open(cert) as f:
        pem = f.read()
    return {"certificate": cert, "private_key": key, "pem": pem,
            **thumbprints(pem)}


def b64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def thumbprints(pem):
    """x5t, x5t#S256 and the SHA-1 in hexadecimal that error texts name."""
    der = ssl.PEM_cert_to_DER_cert(_first_certificate(pem))
    sha1 = hashlib.sha1(der)
    return {"x5t": b64url(sha1.digest()),
            "x5t#S256": b64url(hashlib.sha256(der).digest()),
            "thumbprint": sha1.hexdigest().upper()}


def _first_certificate(pem):
    found = re.search("-----BEGIN CERTIFICATE-----.*?"
                      "-----END CERTIFICATE-----\n?", pem, re.S)
    if not found:
        raise ValueError("no PEM certificate")
    return found.group(0)


@functools.lru_cache(maxsize=100)
def validity(pem):
    """notBefore and notAfter of a certificate as seconds since 1970."""
    text = openssl("x509", "-noout", "-dates",
                   data=pem.encode("ascii")).decode("ascii")
    dates = dict(line.split("=", 1) for line in text.splitlines())
    return (ssl.cert_time_to_seconds(dates["notBefore"]),
            ssl.cert_time_to_seconds(dates["notAfter"]))


@functools.lru_cache(maxsize=100)
def _public_key(pem):
    return openssl("x509", "-noout", "-pubkey", data=pem.encode("ascii"))


def signature_matches(pem, algorithm, signed, signature):
    """Whether `signature` over `signed` is by the certificate's key.

    PS256 is RSASSA-PSS with SHA-256 and a salt as long as the digest
    (RFC 7518, 3.5); any other salt length is refused.
    """
    args = ["dgst", "-sha256"]
    if algorithm == "PS256":
        args += ["-sigopt", "rsa_padding_mode:pss",
                 "-sigopt", "rsa_pss_saltlen:32"]
    with tempfile.TemporaryDirectory(prefix="sim") as tmp:
        for name, content in (("pub", _public_key(pem)), ("sig", signature)):
            with open(os.path.join(tmp, name), "wb") as f:
                f.write(content)
        try:
            openssl(*args, "-verify", "pub", "-signature", "sig",
                    cwd=tmp, data=signed)
        except RuntimeError:
            return False
    return True
