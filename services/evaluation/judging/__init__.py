"""LLM as judge: rubrics that models grade answers by, asked through the stream itself."""
