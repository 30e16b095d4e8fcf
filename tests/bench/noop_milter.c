/*
 * The measure for every filter: one built on libmilter that does nothing.
 * noop_milter SOCKET [quiet]. It takes the steps that any filter of envelopes
 * sees; with "quiet" it also leaves out what relay365-milter leaves out, so
 * that the difference is what counting costs.
 */
#include "base/compat.h"

#include <libmilter/mfapi.h>
#include <stdbool.h>

static bool quiet;

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps,
			     unsigned long unused2, unsigned long unused3,
			     unsigned long *actions_r, unsigned long *steps_r,
			     unsigned long *unused2_r, unsigned long *unused3_r)
{
	unsigned long away =
		SMFIP_NODATA | SMFIP_NOUNKNOWN | SMFIP_NOHDRS | SMFIP_NOEOH | SMFIP_NOBODY;

	(void)ctx;
	(void)actions;
	(void)unused2;
	(void)unused3;
	if (quiet)
		away |= SMFIP_NOCONNECT | SMFIP_NOHELO | SMFIP_NR_MAIL;
	*actions_r = *unused2_r = *unused3_r = 0;
	*steps_r = away & steps;
	return SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *name, _SOCK_ADDR *address)
{
	(void)ctx;
	(void)name;
	(void)address;
	return SMFIS_CONTINUE;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
	(void)ctx;
	(void)name;
	return SMFIS_CONTINUE;
}

static sfsistat on_mail(SMFICTX *ctx, char **argv)
{
	(void)ctx;
	(void)argv;
	return quiet ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_rcpt(SMFICTX *ctx, char **argv)
{
	(void)ctx;
	(void)argv;
	return SMFIS_CONTINUE;
}

static sfsistat on_step(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
	struct smfiDesc desc = {
		.xxfi_version = SMFI_VERSION,
		.xxfi_connect = on_connect,
		.xxfi_helo = on_helo,
		.xxfi_envfrom = on_mail,
		.xxfi_envrcpt = on_rcpt,
		.xxfi_eom = on_step,
		.xxfi_abort = on_step,
		.xxfi_close = on_step,
		.xxfi_negotiate = on_negotiate,
	};
	char name[] = "noop_milter";

	if (argc < 2)
		return 2;
	quiet = argc > 2 && strcmp(argv[2], "quiet") == 0;
	desc.xxfi_name = name;
	if (smfi_register(desc) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
		return 1;
	(void)smfi_setbacklog(1024);
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
