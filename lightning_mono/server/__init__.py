"""A model behind OpenAI's chat API, on LitServe.

Two processes: one speaks HTTP (``spec``), one holds the model and its engine (``api``). In the
order of a request's way: ``spec`` takes it in, ``protocol`` reads it, ``content`` gathers its
pictures from data URLs (``pictures``), uploads (``files``) and addresses (``remote``), ``jobs`` is
what crosses over, ``api`` renders and answers it, ``replies`` says it in OpenAI's words.
"""
