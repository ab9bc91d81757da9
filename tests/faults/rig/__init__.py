"""The fault rig: runs the whole system on one machine, injects faults, and checks the guarantees.

supervisor.py   starts private stores and the API and executor processes, and repairs all of them
slots.py        ProcessSlot: keeps one API or executor running, behind a fault proxy to each store
model.py        questions for the fake model, and its exact answers
clients.py      well-behaved clients of the HTTP API, which record what they do and see
load.py         load for the clients: many users at a given rate, or quick messages in one session
readings.py     what one reader has received of a task's stream, over any number of connections
history.py      the record of what clients and faults did, one line per event
snapshot.py     what the system holds when every task has ended
story.py        a history and a snapshot, indexed by message, task and session for the checker
checker.py      finds violations of the guarantees in a history and a snapshot
nemesis.py      injects faults in the order of a seed: kills, freezes, cut connections
losses.py       makes a store lose its data, its connections, or what was declared in it
mutant.py       runs a process with one rule switched off, to prove that the checker finds the fault

The names history, nemesis and checker are those of Jepsen (https://jepsen.io).
"""
