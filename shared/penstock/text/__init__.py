"""Pure judgements of texts that more than one service makes."""
