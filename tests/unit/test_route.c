#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "milter/route.h"

#include "temp.h"

/* Spelled as Postfix takes it, and as it sends it on; but for letters, which it leaves. */
static const struct {
	const char *smtp, *address;
} spellings[] = {
	{"<a@b.c>", "a@b.c"},
	{"a@b.c", "a@b.c"},
	{"<A.b+c@D.e>", "A.b+c@D.e"},
	{"<>", ""},
	{"", ""},
	{"<a>", "a"},
	{"<", ""},
	{">", ""},
	{"<\"erp\"@b.c>", "erp@b.c"},
	{"<\"\\erp\"@b.c>", "erp@b.c"},
	{"<\"e\\rp\"@b.c>", "erp@b.c"},
	{"<e\\rp@b.c>", "erp@b.c"},
	{"<\"e\".\"rp\"@b.c>", "e.rp@b.c"},
	{"<\"e\" . rp@b.c>", "e.rp@b.c"},
	{"<erp @ b . c >", "erp@b.c"},
	{"<\"erp\"@\"b.c\">", "erp@b.c"},
	{"<erp(c)@b.c>", "erp@b.c"},
	{"<(x)erp@b.c>", "erp@b.c"},
	{"<erp@b.c.>", "erp@b.c"},
	{"<erp@b.c.(x)>", "erp@b.c"},
	{"<erp@b.c. (x)>", "erp@b.c"},
	{"<@x.y:erp@b.c>", "erp@b.c"},
	{"<@x.y,@z:erp@b.c>", "erp@b.c"},
	{"<@x.y:@z:erp@b.c>", "erp@b.c"},
	{"<<erp@b.c>>", "erp@b.c"},
	{"<Erp <erp@b.c>>", "erp@b.c"},
	{"<erp%b.c>", "erp@b.c"},
	{"<b.c!erp>", "erp@b.c"},
	{"<\"erp%b.c\">", "erp@b.c"},
	{"<\"erp@b.c\">", "erp@b.c"},
	{"<erp%b.c@>", "erp@b.c"},
	{"<erp@b.c@>", "erp@b.c"},
	{"<erp%b.c@(x)>", "erp@b.c"},
	{"<a!b!erp>", "b!erp@a"},
	{"<a%b%c>", "a%b@c"},
	{"<a!b%c>", "b%c@a"},
	/* What would be another's without its quotes keeps them. */
	{"<\"x@y\"@b.c>", "\"x@y\"@b.c"},
	{"<\"x \\y\"@b.c>", "\"x y\"@b.c"},
	{"<\"x\\\"\\\\y\"@b.c>", "\"x\\\"\\\\y\"@b.c"},
	{"<erp%x.y@b.c>", "erp%x.y@b.c"},
	{"<erp@x.y@b.c>", "erp@x.y@b.c"},
	{"<@b.c>", "\"\"@b.c"},
	{"<\"\"@b.c>", "\"\"@b.c"},
	{"<\"\">", "\"\""},
	{"<a@[10.0.0.1]>", "a@[10.0.0.1]"},
	{"<m\xc3\xbcller@b.c>", "m\xc3\xbcller@b.c"},
	/* Not to be read. */
	{"<\"erp@b.c>", "\"erp@b.c"},
	{"<(erp@b.c>", "(erp@b.c"},
	{"<erp@b.c..>", "erp@b.c.."},
	{"<erp\\>", "erp\\"},
	{"<@>", "\"\""},
	{"<@a:>", "@a:"},
	{"<Erp <erp@b.c>", "erp@b.c"},
	{"<!>", "@"},
};

static void test_addresses(void **state)
{
	char address[ROUTE_ADDRESS_MAX + 1], longer[1000];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
		route_address(spellings[i].smtp, address);
		if (strcmp(address, spellings[i].address) != 0)
			fail_msg("%s: %s", spellings[i].smtp, address);
	}
	assert_string_equal(route_domain("\"x@y\"@b.c"), "b.c");
	assert_string_equal(route_domain("a"), "");
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	route_address(longer, address);
	assert_int_equal(strlen(address), ROUTE_ADDRESS_MAX);
	longer[1] = '!';
	longer[ROUTE_ADDRESS_MAX] = '\0';
	route_address(longer, address);
	assert_int_equal(strlen(address), ROUTE_ADDRESS_MAX);
	assert_string_equal(route_domain(address), "x");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
