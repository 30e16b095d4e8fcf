# Lets the application relay365 send as these mailboxes of @TENANT@, and as no others.
# Made by relay365 setup tenant on @HOST@. See handover.md, which explains each step.
#
# Run it as an Exchange administrator, in PowerShell 7 with the module
# ExchangeOnlineManagement. Run again it changes what is missing only.
#   .\grant.ps1             the role Application SMTP.SendAsApp, for these mailboxes only
#   .\grant.ps1 -Classic    full access to the mailboxes instead
param(
    # Enterprise applications, relay365, Object ID. Not that of the app registration.
    [string]$ObjectId = '@OBJECT_ID@',
    [string]$ClientId = '@CLIENT_ID@',
    [switch]$Classic
)
$ErrorActionPreference = 'Stop'
$Mailboxes = @(@MAILBOX_ARRAY@)
# sender address = mailbox that shall send as it
$SendAs = @(@SEND_AS_ARRAY@)

Connect-ExchangeOnline -ShowBanner:$false
if (-not $ClientId) { $ClientId = Read-Host 'Application (client) id' }
if (-not $ObjectId) { $ObjectId = Read-Host 'Object ID under Enterprise applications' }

$principal = Get-ServicePrincipal | Where-Object { $_.AppId -eq $ClientId }
if (-not $principal) {
    $principal = New-ServicePrincipal -AppId $ClientId -ObjectId $ObjectId -DisplayName 'relay365'
} elseif ($principal.ObjectId -ne $ObjectId) {
    throw "Exchange knows this application by another object id, $($principal.ObjectId). " +
        "It can't be changed: Remove-ServicePrincipal -Identity $($principal.ObjectId), then run this again."
}

if ($Classic) {
    foreach ($mailbox in $Mailboxes) {
        Add-MailboxPermission -Identity $mailbox -User $principal.ObjectId -AccessRights FullAccess
    }
} else {
    $group = Get-DistributionGroup -Identity 'relay365-mailboxes' -ErrorAction SilentlyContinue
    if (-not $group) {
        $group = New-DistributionGroup -Name 'relay365-mailboxes' -Type Security
    }
    $members = (Get-DistributionGroupMember -Identity $group.Identity).PrimarySmtpAddress
    foreach ($mailbox in $Mailboxes) {
        if ($members -notcontains $mailbox) {
            Add-DistributionGroupMember -Identity $group.Identity -Member $mailbox
        }
    }
    if (-not (Get-ManagementScope -Identity 'relay365' -ErrorAction SilentlyContinue)) {
        New-ManagementScope -Name 'relay365' `
            -RecipientRestrictionFilter "MemberOfGroup -eq '$($group.DistinguishedName)'"
    }
    if (-not (Get-ManagementRoleAssignment -Identity 'relay365' -ErrorAction SilentlyContinue)) {
        New-ManagementRoleAssignment -Name 'relay365' -App $ClientId `
            -Role 'Application SMTP.SendAsApp' -CustomResourceScope 'relay365'
    }
}

# SMTP AUTH for these mailboxes, whatever the organization's switch says. OAuth needs it too.
foreach ($mailbox in $Mailboxes) {
    Set-CASMailbox -Identity $mailbox -SmtpClientAuthenticationDisabled $false
}

# No passwords: a policy without -AllowBasicAuthSmtp blocks them.
if (-not (Get-AuthenticationPolicy -Identity 'relay365' -ErrorAction SilentlyContinue)) {
    New-AuthenticationPolicy -Name 'relay365'
}
foreach ($mailbox in $Mailboxes) {
    Set-User -Identity $mailbox -AuthenticationPolicy 'relay365'
}

# SendAs, for the mailbox that signs in.
foreach ($pair in $SendAs) {
    Add-RecipientPermission -Identity $pair.Sender -Trustee $pair.Mailbox -AccessRights SendAs `
        -Confirm:$false
}

if (-not $Classic) {
    foreach ($mailbox in $Mailboxes) {
        Test-ServicePrincipalAuthorization -Identity $ClientId -Resource $mailbox
    }
}
Write-Host 'Done. Exchange takes 30 to 120 minutes to follow; on the relay: relay365 probe --wait 2h'
