/*
 * Texts of configurations, and what loads them: conf_enter() and conf_leave()
 * are cmocka's set-up and tear-down.
 */
#ifndef RELAY365_TESTS_CONF_KIT_H
#define RELAY365_TESTS_CONF_KIT_H

#include "conf/conf.h"

#define ID "id = \"contoso.onmicrosoft.com\"\n"
#define CLIENT "client_id = \"11111111-2222-3333-4444-555555555555\"\n"
#define SECRET "secret_file = \"secret\"\n"
#define TENANT "tenants: { contoso: {\n" ID CLIENT SECRET "} }\n" /* 5 lines */
#define MAILBOX "mailboxes: { relay: {\naddress = \"relay@contoso.com\"\n} }\n"
#define TENANT_WITH(line) "tenants: { contoso: {\n" ID CLIENT line "} }\n" MAILBOX
#define MAILBOX_WITH(line) \
	TENANT "mailboxes: { relay: {\naddress = \"relay@contoso.com\"\n" line "} }\n"
#define CUSTOM_WITH(line) TENANT_WITH(SECRET "cloud = \"custom\"\n" line)
#define TWO_WITH(first, second)                                                \
	TENANT "mailboxes: {\nrelay: { address = \"relay@contoso.com\" " first \
	       " }\nother: { address = \"other@contoso.com\" " second " }\n}\n"

/* A folder that is the current one, with the files secret, key, certificate and open in it. */
int conf_enter(void **state);
int conf_leave(void **state);

/* From a file c.conf with this text; load_good() fails the test where load() gives NULL. */
struct conf *load(const char *text, struct err *err);
struct conf *load_good(const char *text);

#define IN_TEMP(test) cmocka_unit_test_setup_teardown(test, conf_enter, conf_leave)

#endif
