"""Generate rules and mutate rules with targets, carried out by the controller behind the requests.

    needs.py     policies -> which kinds are followed         caches.py   follows them; lookups
    stored.py    one object, small                            index.py    what policies have made
    verdicts.py  policies + trigger -> verdicts of the rules  planning.py verdicts + made -> steps
    writer.py    the choke point of all writes                targets.py  existing objects changed
    memory.py    since when a rule counts                     status.py   status, Events
    reconcile.py one trigger brought in order, and its report rights.py   RBAC that policies need
    queue.py     the triggers, and who takes them             lead.py      what has been dealt with
    work.py      puts these together; what came of it

Level-triggered: what has to be done follows from policies, triggers and the marks on generated
objects, never from a list of events, so that nothing is lost while no controller runs.
"""
