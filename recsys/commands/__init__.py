"""Every change of state, once: done and written to the audit log in one transaction.

    deployments.py  promote, roll back, publish what was trained
    job_control.py  ask for a run, cancel one, pause and resume a schedule
    credentials.py  API keys, accounts of the dashboard, logging in and out
    user_data.py    a user's attributes, merge users, erase one, take an erased one back
    imports.py      take back what an import of a file brought
    scenarios.py    change, delete and roll back how places of the shop are answered
    catalogue.py    switch an item's availability
    intake.py       events and tracked messages as they arrive

HTTP, the dashboard, the command line and jobs call these with the `Actor` who asks and the time, so
that a change leaves the same line whichever way it came. What arrives as data (events, impressions,
items, heartbeats of runs) leaves none.
"""
