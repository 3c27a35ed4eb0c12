"""The ledger: the topic ``costs``, read independently of the services that write it.

``reading`` reads it, ``rebuild`` adds it up, ``verification`` compares it with what else says what was spent.
"""
