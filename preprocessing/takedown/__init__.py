"""Taking documents down: out of the corpus for good, with only the shards concerned rewritten.

    corpus.directory/
      takedown.jsonl           the ledger: what ingest and clean leave out from now on
      .takedown-journal.json   while a takedown is unfinished

Every copy goes, before and after cleaning: from documents/, filtered/, clean/ and every tokens/;
manifests say so, and what was up to date stays so. Example sets number their documents anew when
one is missing, and tables count them: those made of tokens that lost one are removed, and the next
run builds them.
Removed, too, is what cannot be searched: unfinished output, tokens and examples of what is no more.

What stays: tokenizers, since a vocabulary keeps no text; near duplicates that were dropped because
of a document do not come back; models keep what they have learnt.
"""
