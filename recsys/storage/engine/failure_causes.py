"""Why a database cannot be reached or refuses, told from what its driver says, without its words.

The driver's words name hosts, roles and values, and may go into no answer; the operator sees them under
`--debug`.
"""

from __future__ import annotations

import re

NO_GRANT = "the account lacks a GRANT"
# The first that is found tells. Words of libpq and PostgreSQL, of PyMySQL and MySQL, and of SQLite.
_CAUSES = tuple(
    (re.compile(words, re.IGNORECASE), cause)
    for words, cause in (
        (
            r"could not translate host name|failed to resolve host|name or service not known|"
            r"nodename nor servname|name resolution|getaddrinfo|No address associated",
            "its host name is unknown",
        ),
        (
            r"invalid response to SSL negotiation|unsupported frontend protocol|packet sequence|"
            r"\(2013,|\(2014,",
            "what listens there is no such database, or hung up",
        ),
        (
            r"invalid (connection|URI query) (option|parameter)|unexpected keyword argument",
            "its address has an option that its driver does not know",
        ),
        (r"certificate|\bssl\b|\btls\b|ssl error", "TLS with it failed: certificate or sslmode"),
        (r"connection refused|errno 111", "its host refused the connection: nothing listens there"),
        (r"no route to host|network is unreachable", "its host cannot be reached by the network"),
        (
            r"permission denied|command denied|\(1044,|\(1142,|\(1143,|insufficient privilege",
            NO_GRANT,
        ),
        (
            r"password authentication failed|no password supplied|access denied for user|"
            r"authentication failed|\(1045,|\(1698,",
            "it refused the user name or password",
        ),
        (r'role ".*" does not exist', "its role (the user name) does not exist"),
        (r'database ".*" does not exist|unknown database|\(1049,', "its database does not exist"),
        (r"no pg_hba.conf entry|pg_hba.conf rejects", "it admits no such connection (pg_hba.conf)"),
        (r"not currently accepting|is not permitted to log in", "it admits no such connection"),
        (
            r"too many (clients|connections)|connection slots|\(1040,|\(1203,",
            "it takes no more connections",
        ),
        (r"starting up|shutting down|recovery mode", "it is starting up or shutting down"),
        (
            r"timeout expired|timed out|connection timeout|ConnectionTimeout",
            "it gave no answer in time",
        ),
        (r"unable to open database", "its file cannot be opened"),
        (r"not a database", "its file is no SQLite database"),
        (r"malformed", "its file is damaged"),
        (r"cryptography.*required", "it asks for a log-in that needs the package cryptography"),
        (
            r'relation ".*" does not exist|doesn\'t exist|no such table|\(1146,|UndefinedTable',
            "the table does not exist",
        ),
        (
            r"column .* does not exist|unknown column|no such column|\(1054,",
            "a column does not exist",
        ),
    )
)


def cause_of(error: BaseException) -> str | None:
    """The cause in words that hold nothing of the driver's; None where it is not known.

    >>> cause_of(OSError('FATAL:  password authentication failed for user "ann"'))
    'it refused the user name or password'
    """
    said = str(error)
    return next((cause for words, cause in _CAUSES if words.search(said)), None)
