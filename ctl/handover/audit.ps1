# What @TENANT@ lets the application relay365 and its mailboxes do. Changes nothing.
# Made by relay365 setup tenant on @HOST@.
#
# Run it as an Exchange administrator or Global Reader, in PowerShell 7 with the module
# ExchangeOnlineManagement; for the certificate's end also Microsoft.Graph.Applications.
param([string]$ClientId = '@CLIENT_ID@')
$ErrorActionPreference = 'Stop'
$Mailboxes = @(@MAILBOX_ARRAY@)

Connect-ExchangeOnline -ShowBanner:$false

'--- SMTP AUTH in the organization (True: off, unless the mailbox turns it on)'
Get-TransportConfig | Format-List SmtpClientAuthenticationDisabled

'--- Mailboxes that may use SMTP AUTH whatever the organization says'
Get-CASMailbox -ResultSize Unlimited |
    Where-Object { $_.SmtpClientAuthenticationDisabled -eq $false } |
    Format-Table PrimarySmtpAddress, SmtpClientAuthenticationDisabled

'--- The application in Exchange, and its roles'
Get-ServicePrincipal | Where-Object { $_.AppId -eq $ClientId } |
    Format-List DisplayName, AppId, ObjectId
Get-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' |
    Format-Table Name, App, CustomResourceScope

foreach ($mailbox in $Mailboxes) {
    "--- $mailbox"
    Get-Mailbox -Identity $mailbox | Format-List RecipientTypeDetails, RecipientLimits,
        MaxSendSize, MessageCopyForSMTPClientSubmissionEnabled
    Get-User -Identity $mailbox | Format-List AuthenticationPolicy
    Get-MailboxStatistics -Identity $mailbox | Format-List TotalItemSize, ItemCount
    Test-ServicePrincipalAuthorization -Identity $ClientId -Resource $mailbox
    'Full access:'
    Get-MailboxPermission -Identity $mailbox |
        Where-Object { $_.AccessRights -contains 'FullAccess' } | Format-Table User
    'May send as this mailbox:'
    Get-RecipientPermission -Identity $mailbox | Format-Table Trustee, AccessRights
    'This mailbox may send as:'
    Get-RecipientPermission -Trustee $mailbox -ResultSize Unlimited |
        Format-Table Identity, AccessRights
}

'--- Outbound limits that are lower than the service''s'
Get-HostedOutboundSpamFilterPolicy | Format-Table Name, RecipientLimitExternalPerHour,
    RecipientLimitInternalPerHour, RecipientLimitPerDay, ActionWhenThresholdReached

'--- Who still signs in with a password: Exchange admin center, Reports, Mail flow,'
'    SMTP AUTH Clients Submission'

if (Get-Module -ListAvailable Microsoft.Graph.Applications) {
    '--- Credentials of the application and when they end'
    Connect-MgGraph -Scopes 'Application.Read.All' -NoWelcome
    $application = Get-MgApplication -Filter "appId eq '$ClientId'"
    $application.KeyCredentials | Format-Table DisplayName, EndDateTime
    $application.PasswordCredentials | Format-Table DisplayName, EndDateTime
}
