"""Checks a client assertion as Entra ID does for certificate credentials."""

import base64
import binascii
import json
import re
import time

import ca
from aadsts import Refused

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST = 3600          # seconds from nbf to exp


def _part(text, what):
    # base64url without padding (RFC 7515, 2); Python would forgive the rest
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise Refused(50027, "The %s is not base64url." % what)
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Refused(50027, "The %s is not base64url." % what)


def _object(text, what):
    try:
        value = json.loads(_part(text, what).decode("utf-8"))
    except (UnicodeDecodeError, ValueError):
        raise Refused(50027, "The %s is not JSON." % what)
    if not isinstance(value, dict):
        raise Refused(50027, "The %s is not an object." % what)
    return value


def _certificate(header, client, now):
    """The registered certificate that the header names."""
    algorithm = header.get("alg")
    if algorithm not in ("PS256", "RS256"):
        raise Refused(700027, "[Reason - Signature algorithm '%s' is not "
                      "supported.]" % algorithm)
    if header.get("typ", "JWT").upper() != "JWT":
        raise Refused(50027, "The header's typ is not JWT.")
    # SHA-1 thumbprints belong to RS256 only; PS256 comes with x5t#S256
    names = ["x5t#S256"] + (["x5t"] if algorithm == "RS256" else [])
    given = [(name, header[name]) for name in names if name in header]
    if not given:
        raise Refused(700027, "[Reason - The key was not found: the header "
                      "carries no thumbprint that %s may use.]" % algorithm)
    name, thumbprint = given[0]
    for registered in client["certificates"]:
        prints = ca.thumbprints(registered["pem"])
        if prints[name] != thumbprint or registered["disabled"]:
            continue
        start, end = ca.validity(registered["pem"])
        if registered["not_before"] is not None:
            start = registered["not_before"]
        if registered["not_after"] is not None:
            end = registered["not_after"]
        if not start <= now <= end:
            raise Refused(700027, "[Reason - The key used is expired., "
                          "Thumbprint of key used by client: '%s', Found key "
                          "'Start=%s, End=%s']" % (
                              prints["thumbprint"], _date(start), _date(end)))
        return registered["pem"], prints["thumbprint"]
    raise Refused(700027, "[Reason - The key was not found., Thumbprint of "
                  "key used by client: '%s', Please visit the Azure Portal, "
                  "Graph Explorer or directly use MS Graph to see configured "
                  "keys for app Id]" % _hexadecimal(thumbprint))


def _hexadecimal(thumbprint):
    return _part(str(thumbprint), "thumbprint").hex().upper()


def _date(when):
    return time.strftime("%m/%d/%Y %H:%M:%S", time.gmtime(when))


def _times(claims, now, skew):
    exp, nbf = claims.get("exp"), claims.get("nbf")
    for value, name in ((exp, "exp"), (nbf, "nbf")):
        # a string or a fraction here is a bug in the client
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused(50027, "The claim %s is missing or not an integer."
                          % name)
    if now > exp + skew or now < nbf - skew:
        raise Refused(700024, "Current time: %s, expiry time of assertion "
                      "%s." % (_date(now), _date(exp)))
    if exp <= nbf or exp - nbf > LONGEST:
        raise Refused(700024, "The assertion lives for %d seconds; at most "
                      "%d are allowed." % (exp - nbf, LONGEST))


def issuer(text):
    """Who has issued it, unchecked; None if that can't be read."""
    parts = text.split(".")
    return _object(parts[1], "payload").get("iss") if len(parts) == 3 else None


def check_federated(text, client, now, skew):
    """Raise Refused unless a federated credential of the client trusts this token."""
    parts = text.split(".")
    header, claims = _object(parts[0], "header"), _object(parts[1], "payload")
    where = "Assertion Issuer: '%s'. Assertion Subject: '%s'. Assertion Audience: '%s'." % (
        claims.get("iss"), claims.get("sub"), claims.get("aud"))
    for number, name in ((700211, "issuer"), (700213, "subject"), (700212, "audience")):
        claim = claims.get({"issuer": "iss", "subject": "sub", "audience": "aud"}[name])
        if not any(known[name] == claim for known in client["federated"]):
            raise Refused(number, where)
    [known] = [known for known in client["federated"] if known["issuer"] == claims["iss"]
               and known["subject"] == claims["sub"]]
    if header.get("alg") != "RS256" or not ca.signature_matches(
            known["pem"], "RS256", ".".join(parts[:2]).encode("ascii"),
            _part(parts[2], "signature")):
        raise Refused(50027, "The signature does not match.")
    if not isinstance(claims.get("exp"), int) or now > claims["exp"] + skew:
        raise Refused(700024, "Current time: %s." % _date(now))
    return {"iss": claims["iss"], "sub": claims["sub"], "aud": claims["aud"]}


def check(text, client_id, client, audiences, now, skew, seen):
    """Raise Refused unless `text` proves that the client holds its key.

    `seen` remembers each jti until its assertion has expired.
    """
    parts = text.split(".")
    if len(parts) != 3:
        raise Refused(50027, "There are not three parts.")
    header, claims = _object(parts[0], "header"), _object(parts[1], "payload")
    if not claims.get("sub"):
        raise Refused(700022)
    if claims["sub"] != client_id or claims.get("iss") != client_id:
        raise Refused(700021)
    pem, thumbprint = _certificate(header, client, now)
    signed = ".".join(parts[:2]).encode("ascii")
    if not ca.signature_matches(pem, header["alg"], signed,
                                _part(parts[2], "signature")):
        raise Refused(700027, "[Reason - The provided signature value did "
                      "not match the expected signature value., Thumbprint "
                      "of key used by client: '%s']" % thumbprint)
    if claims.get("aud") not in audiences:
        raise Refused(700023)
    _times(claims, now, skew)
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise Refused(50027, "The claim jti is missing.")
    for old in [j for j, end in seen.items() if end < now - skew]:
        del seen[old]
    if (client_id, jti) in seen:
        raise Refused(50013, "[Reason - The assertion with this jti was "
                      "already used.]")
    seen[(client_id, jti)] = claims["exp"]
    return {"alg": header["alg"], "jti": jti, "aud": claims["aud"],
            "lifetime": claims["exp"] - claims["nbf"],
            "thumbprint": thumbprint}
