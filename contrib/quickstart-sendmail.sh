# The parts of contrib/quickstart that are Sendmail's: sourced by it.
# shellcheck shell=bash disable=SC2016,SC2154 # expansion is for the inner shell; dir and top are the script's

unpacked=${RELAY365_SENDMAIL:-/var/cache/relay365-sendmail}
mail=$dir/sendmail

# Sendmail waits a minute for DNS unless the machine's name is qualified: it gets one.
run_sendmail() {
	unshare --uts -- sh -c 'hostname gateway.example && exec "$0" "$@"' \
		"$unpacked/usr/libexec/sendmail/sendmail" -C "$mail/etc/sendmail.cf" "$@"
}

write_sendmail() {
	say '4. A private Sendmail, configured by "relay365 setup sendmail"'
	port=$(free_port)
	mkdir -p "$mail/etc" "$mail/queue" "$mail/mail"
	chmod 700 "$mail/queue"
	cp -r "$unpacked/usr/share/sendmail/cf" "$mail/cf"
	printf 'postmaster: root\nMAILER-DAEMON: postmaster\n' >"$mail/etc/aliases"
	printf 'gateway.example\n' >"$mail/etc/local-host-names"
	printf '127.0.0.1\n' >"$mail/etc/relay-domains"
	printf 'hosts files\naliases files\n' >"$mail/etc/service.switch"
	printf '#!/bin/sh\nexec cat >>%s/mail/box\n' "$mail" >"$mail/etc/mda"
	chmod 755 "$mail/etc/mda"
	sendmail_mc >"$mail/etc/sendmail.mc"
	m4 "$mail/etc/sendmail.mc" >"$mail/etc/sendmail.cf" || die 'm4 failed'
	relay365 setup sendmail --config-dir "$mail/etc" >"$dir/setup.txt" || die 'setup failed'
	grep '^[+]FEATURE' "$dir/setup.txt" | sed 's/^/   /'
	relay365 setup sendmail --config-dir "$mail/etc" --apply | sed 's/^/   /'
	run_sendmail -bi >"$dir/aliases.log" 2>&1 || die "no aliases: $dir/aliases.log"
	tell "its files are in $mail/etc, its port is $port"
}

sendmail_mc() {
	cat <<MC
include(\`$mail/cf/m4/cf.m4')dnl
define(\`sm_version')dnl
OSTYPE(\`linux')dnl
define(\`confDOMAIN_NAME', \`gateway.example')dnl
define(\`ALIAS_FILE', \`$mail/etc/aliases')dnl
define(\`confCW_FILE', \`$mail/etc/local-host-names')dnl
define(\`confCR_FILE', \`$mail/etc/relay-domains')dnl
define(\`confSERVICE_SWITCH_FILE', \`$mail/etc/service.switch')dnl
define(\`confPID_FILE', \`$mail/sendmail.pid')dnl
define(\`STATUS_FILE', \`$mail/statistics')dnl
define(\`QUEUE_DIR', \`$mail/queue')dnl
define(\`LOCAL_MAILER_PATH', \`$mail/etc/mda')dnl
define(\`LOCAL_MAILER_ARGS', \`mda \$u')dnl
define(\`confDONT_BLAME_SENDMAIL', \`TrustStickyBit')dnl
define(\`confDONT_PROBE_INTERFACES', \`true')dnl
FEATURE(\`local_procmail', \`$mail/etc/mda', \`mda \$u')dnl
FEATURE(\`use_cw_file')dnl
FEATURE(\`nocanonify')dnl
FEATURE(\`accept_unresolvable_domains')dnl
FEATURE(\`no_default_msa')dnl
DAEMON_OPTIONS(\`Family=inet, Name=MTA, Addr=127.0.0.1, Port=$port')dnl
MAILER(\`local')dnl
MAILER(\`smtp')dnl
MC
}

start_sendmail() {
	start submit relay365-submit
	until_works 20 test -S "$dir/submit-run/submit" ||
		die "relay365-submit did not start: $dir/submit.log"
	# In the foreground, with a queue run every two seconds.
	start sendmail unshare --uts -- sh -c 'hostname gateway.example && exec "$0" "$@"' \
		"$unpacked/usr/libexec/sendmail/sendmail" -C "$mail/etc/sendmail.cf" -bD -q2s
	until_works 30 greets || die "Sendmail did not start: $dir/sendmail.log"
}

greets() { python3 -c "import smtplib; smtplib.SMTP('127.0.0.1', $port, timeout=5)"; }

delivery_of_sendmail() { grep -h ': submit ' "$dir/submit.log" | head -n 1; }

queue_of_sendmail_is_empty() { run_sendmail -bp | grep -q 'is empty\|requests: 0'; }

look_around_sendmail() { echo "less $mail/etc/sendmail.mc $dir/submit.log"; }
