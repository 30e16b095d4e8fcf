divert(-1)
dnl
dnl FEATURE(`relay365', `SUBMIT', `MILTER', `RECIPIENTS')
dnl
dnl All mail that would leave this machine by SMTP goes to relay365-submit(8), and
dnl relay365-milter(8) is asked about each message. All arguments can be left out:
dnl   SUBMIT      socket of relay365-submit, default /run/relay365s/submit
dnl   MILTER      where relay365-milter listens, as INPUT_MAIL_FILTER writes it, default
dnl               local:/run/relay365m/milter; "none" to do without
dnl   RECIPIENTS  of one message to Microsoft's server, default 100
dnl
dnl It defines the mailer relay365 and makes it the smart host; a machine that
dnl sends only some mail through Office 365 undefines SMART_HOST behind this line
dnl and names the mailer in its mailertable: "contoso.com relay365:office365".
dnl
ifdef(`_MAILER_smtp_', `errprint(`*** ERROR: FEATURE(relay365) must stand before MAILER(smtp)
')')
define(`_RELAY365_SUBMIT_', ifelse(len(X`'_ARG_), `1', `/run/relay365s/submit', _ARG_))
define(`_RELAY365_MILTER_', ifelse(len(X`'_ARG2_), `1', `local:/run/relay365m/milter', _ARG2_))
define(`_RELAY365_RCPTS_', ifelse(len(X`'_ARG3_), `1', `100', _ARG3_))
define(`SMART_HOST', `relay365:office365')
dnl F=T: with the milter down mail is refused for now; without it, mail would pass
dnl and its limits with it.
ifelse(_RELAY365_MILTER_, `none', `',
	`INPUT_MAIL_FILTER(`relay365', `S='_RELAY365_MILTER_`, F=T, T=C:30s;S:30s;R:60s;E:5m')')
dnl As the mailer "relay" of mailer/smtp.m4, but for the last two lines.
divert(7)
Mrelay365,	P=[IPC], F=mDFMuXa8k, S=EnvFromSMTP/HdrFromSMTP, R=ifdef(`_ALL_MASQUERADE_', `MasqSMTP/MasqRelay', `MasqSMTP'), E=\r\n, L=2040,
		r=_RELAY365_RCPTS_, T=DNS/RFC822/SMTP,
		A=FILE _RELAY365_SUBMIT_
divert(-1)
