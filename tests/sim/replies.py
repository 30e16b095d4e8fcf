"""What Exchange Online says, in its own words, with its own suffixes."""

import binascii
import os
import time

HOST = "AM0PR01CA0001.eurprd01.prod.outlook.com"
GREETING_HOST = "AM0PR01CA0001.outlook.office365.com"


def stamp():
    """[HOST time id], as it stands behind most refusals."""
    now = time.time()
    return "[%s %s.%03dZ %s]" % (
        HOST, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)),
        now % 1 * 1000, "08DE" + binascii.hexlify(os.urandom(6)).decode()
        .upper())


def hostname():
    return "[Hostname=AM0PR01MB0001.eurprd01.prod.outlook.com]"


def greeting():
    return "220 %s Microsoft ESMTP MAIL Service ready at %s %s" % (
        GREETING_HOST, time.strftime("%a, %d %b %Y %H:%M:%S +0000",
                                     time.gmtime()), stamp())


AUTH_OK = "235 2.7.0 Authentication successful"
AUTH_TYPE = "504 5.7.4 Unrecognized authentication type"

# reason -> text; the reasons are also what the fault auth_fail takes
AUTH_FAILURES = {
    "unsuccessful": "535 5.7.3 Authentication unsuccessful",
    "tenant": "535 5.7.139 Authentication unsuccessful, "
              "SmtpClientAuthentication is disabled for the Tenant. Visit "
              "https://aka.ms/smtp_auth_disabled for more information.",
    "mailbox": "535 5.7.139 Authentication unsuccessful, "
               "SmtpClientAuthentication is disabled for the Mailbox. Visit "
               "https://aka.ms/smtp_auth_disabled for more information.",
    "policy": "535 5.7.139 Authentication unsuccessful, the request did not "
              "meet the criteria to be authenticated successfully. Contact "
              "your administrator.",
    "security_defaults": "535 5.7.139 Authentication unsuccessful, user is "
                         "locked by your organization's security defaults "
                         "policy. Contact your administrator.",
    "basic": "535 5.7.139 Authentication unsuccessful, basic authentication "
             "is disabled.",
    "removed": "550 5.7.30 Basic authentication is not supported for Client "
               "Submission.",
    "temporary": "454 4.7.0 Temporary authentication failure",
}

NOT_AUTHENTICATED = ("530 5.7.57 SMTP; Client was not authenticated to send "
                     "anonymous mail during MAIL FROM")
TOO_LONG = "500 5.5.6 Authentication exchange line is too long"
BAD_BLOB = "501 5.5.127 Invalid XOAUTH2 auth data"
TOO_MANY = "452 4.5.3 Too many recipients"
SIZE_AT_MAIL = "552 5.3.4 Message size exceeds fixed maximum message size"
HEADER_SIZE = "552 5.3.4 Header size exceeds fixed maximum size"
RATE = ("421 4.4.2 Message submission rate for this client has exceeded the "
        "configured limit")
RECIPIENT_LIMIT = "550 5.5.3 RESOLVER.ADR.RecipLimit; too many recipients"
NO_FROM = ("550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 "
           "compliant and include a valid From address")
MANY_FROM = ("550 5.1.20 Multiple From addresses are not allowed without a "
             "Sender address")
BARE_LF = "550 5.6.11 The message contains bare line feeds"
ENVELOPE = ("550 5.7.60 SMTP; Client does not have permissions to send as "
            "this sender")
BLOCKED = "550 5.1.8 Access denied, bad outbound sender"
TENANT_BLOCKED = "550 5.7.705 Access denied, tenant has exceeded threshold"
TENANT_EXTERNAL = ("550 5.7.233 Your message can't be sent because your "
                   "tenant exceeded its daily limit for sending email to "
                   "external recipients (tenant external recipient rate "
                   "limit)")
TRIAL_EXTERNAL = ("550 5.7.232 Your message can't be sent because your trial "
                  "tenant has exceeded its daily limit for sending email to "
                  "external recipients (tenant external recipient rate "
                  "limit)")

_DIAGNOSTIC = ("Failed to process message due to a permanent exception with "
               "message [BeginDiagnosticData]Cannot submit message. "
               "0:%d, %s:000004DC[EndDiagnosticData]")


def concurrent():
    return ("432 4.3.2 Concurrent connections limit exceeded. Visit "
            "https://aka.ms/concurrent_sending for more information. "
            + hostname())


def quota():
    return ("554 5.2.0 STOREDRV.Submission.Exception:"
            "SubmissionQuotaExceededException; "
            + _DIAGNOSTIC % (19, "SubmissionQuotaExceeded") + " " + hostname())


def send_as_denied(mailbox, sender):
    return ("554 5.2.252 SendAsDenied; %s not allowed to send as %s; "
            "STOREDRV.Submission.Exception:SendAsDeniedException."
            "MapiExceptionSendAsDenied; " % (mailbox, sender)
            + _DIAGNOSTIC % (41, "SendAsDenied") + " " + hostname())


def too_large():
    return ("554 5.2.270 STOREDRV.Submission.Exception:"
            "MessageSubmissionExceededException."
            "MapiExceptionMaxSubmissionExceeded; Message size exceeds maximum "
            "size limit.; "
            + _DIAGNOSTIC % (26, "MaxSubmissionExceeded") + " " + hostname())


def accepted(message_id):
    return "250 2.0.0 OK %s %s" % (message_id, hostname())
