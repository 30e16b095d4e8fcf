"""Entra ID's errors: number -> (HTTP status, error, text).

The texts are Microsoft's; where one names the app, the tenant or the scope,
a placeholder stands. A number that isn't here can still be asked for: it
comes with a generic text.
"""

import time
import uuid

TABLE = {
    70016: (400, "authorization_pending", "OAuth 2.0 device flow error. Authorization is "
            "pending. Continue polling."),
    "slow_down": (400, "slow_down", "The polling interval is too short."),
    "authorization_declined": (400, "authorization_declined", "The user declined."),
    70018: (400, "bad_verification_code", "Invalid verification code due to user typing in "
            "wrong user code for device code flow."),
    70020: (400, "expired_token", "The provided value for the input parameter 'device_code' "
            "is not valid. This device code has expired."),
    70000: (400, "invalid_grant", "Provided grant is invalid or malformed."),
    70008: (400, "invalid_grant", "The provided authorization code or refresh token has "
            "expired due to inactivity. Send a new interactive authorization request for "
            "this user and resource."),
    54005: (400, "invalid_grant", "OAuth2 Authorization code was already redeemed, please "
            "retry with a new valid code or use an existing refresh token."),
    50011: (400, "invalid_request", "The redirect URI specified in the request does not "
            "match the redirect URIs configured for the application '{client}'."),
    501481: (400, "invalid_grant", "The Code_Verifier does not match the code_challenge "
             "supplied in the authorization request."),
    700211: (401, "invalid_client", "No matching federated identity record found for "
             "presented assertion issuer. {detail}"),
    700212: (401, "invalid_client", "No matching federated identity record found for "
             "presented assertion audience. {detail}"),
    700213: (401, "invalid_client", "No matching federated identity record found for "
             "presented assertion subject. {detail}"),
    7000215: (401, "invalid_client", "Invalid client secret provided. Ensure "
              "the secret being sent in the request is the client secret "
              "value, not the client secret ID, for a secret added to app "
              "'{client}'."),
    7000222: (401, "invalid_client", "The provided client secret keys for app "
              "'{client}' are expired. Visit the Azure portal to create new "
              "keys for your app: https://aka.ms/NewClientSecret, or consider "
              "using certificate credentials for added security: "
              "https://aka.ms/certCreds."),
    700016: (400, "unauthorized_client", "Application with identifier "
             "'{client}' was not found in the directory '{tenant}'. This can "
             "happen if the application has not been installed by the "
             "administrator of the tenant or consented to by any user in the "
             "tenant. You may have sent your authentication request to the "
             "wrong tenant."),
    7000112: (400, "unauthorized_client",
              "Application '{client}'(relay365) is disabled."),
    700025: (401, "invalid_client", "Client is public so neither "
             "'client_assertion' nor 'client_secret' should be presented."),
    700027: (401, "invalid_client", "Client assertion failed signature "
             "validation. {detail}"),
    700024: (401, "invalid_client", "Client assertion is not within its valid "
             "time range. {detail}"),
    700023: (401, "invalid_client", "Client assertion audience claim does not "
             "match Realm issuer. Review the documentation at "
             "https://docs.microsoft.com/azure/active-directory/develop/"
             "active-directory-certificate-credentials."),
    700021: (401, "invalid_client", "Client assertion application identifier "
             "doesn't match 'client_id' parameter."),
    700022: (401, "invalid_client",
             "No Subject claim provided in the assertion."),
    50013: (401, "invalid_client", "Assertion failed signature validation. "
            "{detail}"),
    50027: (401, "invalid_client", "JWT token is invalid or malformed. "
            "{detail}"),
    7000218: (401, "invalid_client", "The request body must contain the "
              "following parameter: 'client_assertion' or 'client_secret'."),
    90002: (400, "invalid_request", "Tenant '{tenant}' not found. Check to "
            "make sure you have the correct tenant ID and are signing into "
            "the correct cloud. Check with your subscription administrator, "
            "this may happen if there are no active subscriptions for the "
            "tenant."),
    900023: (400, "invalid_request", "Specified tenant identifier '{tenant}' "
             "is neither a valid DNS name, nor a valid external domain."),
    9001023: (400, "invalid_request", "The grant type is not supported over "
              "the /common or /consumers endpoints. Please use the "
              "/organizations or tenant-specific endpoint."),
    900144: (400, "invalid_request", "The request body must contain the "
             "following parameter: '{detail}'."),
    900561: (405, "invalid_request", "The endpoint only accepts POST "
             "requests. Received a {detail} request."),
    9000411: (400, "invalid_request", "The request is not properly "
              "formatted. The parameter '{detail}' is duplicated."),
    90014: (400, "invalid_request", "The required field '{detail}' is missing "
            "from the credential. Ensure that you have all the necessary "
            "parameters for the login request."),
    9002014: (400, "invalid_request", "The request body is not properly "
              "encoded. {detail}"),
    70003: (400, "unsupported_grant_type", "The app requested an unsupported "
            "grant type '{detail}'."),
    70011: (400, "invalid_scope", "The provided request must include a "
            "'scope' input parameter. The provided value for the input "
            "parameter 'scope' is not valid. The scope {detail} is not "
            "valid."),
    1002012: (400, "invalid_scope", "The provided value for scope {detail} is "
              "not valid. Client credential flows must have a scope value "
              "with /.default suffixed to the resource identifier "
              "(application ID URI)."),
    500011: (400, "invalid_resource", "The resource principal named {detail} "
             "was not found in the tenant named {tenant}. This can happen if "
             "the application has not been installed by the administrator of "
             "the tenant or consented to by any user in the tenant. You might "
             "have sent your authentication request to the wrong tenant."),
    501051: (400, "invalid_grant", "Application '{client}'(relay365) is not "
             "assigned to a role for the application "
             "'00000002-0000-0ff1-ce00-000000000000'(Office 365 Exchange "
             "Online)."),
    65001: (400, "invalid_grant", "The user or administrator has not "
            "consented to use the application with ID '{client}' named "
            "'relay365'. Send an interactive authorization request for this "
            "user and resource."),
    53003: (400, "invalid_grant", "Access has been blocked by Conditional "
            "Access policies. The access policy does not allow token "
            "issuance."),
    50196: (400, "invalid_grant", "The server terminated an operation because "
            "it encountered a client request loop. Please contact your app "
            "vendor."),
    90055: (429, "temporarily_unavailable", "The server has terminated the "
            "request due to excessive request rate. Please wait a few seconds "
            "and try again."),
    90033: (503, "temporarily_unavailable",
            "A transient error has occurred. Please try again."),
    90012: (504, "temporarily_unavailable", "This request has timed out."),
    90025: (503, "temporarily_unavailable",
            "Request processing has exceeded gateway allowance."),
    50173: (400, "invalid_grant", "The provided grant has expired due to it "
            "being revoked, a fresh auth token is needed. The user might have "
            "changed or reset their password."),
    700082: (400, "invalid_grant", "The refresh token has expired due to "
             "inactivity. The token was issued on 2026-01-01T00:00:00Z and "
             "was inactive for 90.00:00:00."),
    50076: (400, "interaction_required", "Due to a configuration change made "
            "by your administrator, or because you moved to a new location, "
            "you must use multi-factor authentication to access "
            "'00000002-0000-0ff1-ce00-000000000000'."),
    50057: (400, "invalid_grant", "The user account is disabled."),
    90038: (400, "invalid_request", "Tenant '{tenant}' request is being "
            "redirected to the National Cloud 'MicrosoftOnline.US'."),
}


class Refused(Exception):
    """An answer that is an error; `number` is the AADSTS number."""

    def __init__(self, number, detail=""):
        super().__init__(number)
        self.number, self.detail = number, detail


def body(number, client="", tenant="", detail=""):
    """(HTTP status, JSON object) in the shape Entra ID sends."""
    status, error, text = TABLE.get(
        number, (400, "invalid_request", "The request was refused. {detail}"))
    if not isinstance(number, int):
        return status, {"error": error, "error_description": text}
    stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    text = text.format(client=client, tenant=tenant, detail=detail).strip()
    return status, {
        "error": error,
        "error_description":
            "AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s" % (
                number, text, trace, correlation, stamp),
        "error_codes": [number],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri":
            "https://login.microsoftonline.com/error?code=%d" % number,
    }
