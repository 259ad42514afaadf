"""Rows answered by a serving engine at an address, as it is deployed.

`info` reads what a server serves, `chat` makes requests of rows, `client` sends them, `prompt_check` compares the
prompt that the server made with the checkpoint's own, token by token, and `backend` joins them.
"""
