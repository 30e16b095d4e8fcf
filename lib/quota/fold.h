/*
 * Brings the ledger up to date with a file of the journal, in one transaction
 * that also notes the file's number: what a crash interrupts is done again as
 * a whole, and never twice.
 */
#ifndef RELAY365_QUOTA_FOLD_H
#define RELAY365_QUOTA_FOLD_H

#include "quota/journal.h"
#include "quota/ledger.h"

int fold_journal(struct ledger *ledger, struct journal *journal, uint64_t number,
		 struct err *err);

#endif
