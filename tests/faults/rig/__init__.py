"""The fault rig: the whole system on one machine, what strikes it, what its clients saw, and who judges that.

supervisor.py   private stores, our processes behind fault proxies, kept running
seats.py        the place of one process
model.py        what the fake model says to a question
clients.py      good clients of the HTTP doors, who note all that they see
history.py      those notes
snapshot.py     what the system holds when all is quiet
checker.py      what is wrong about a history and a snapshot, by the guarantees alone
nemesis.py      the strikes, by a seed
mutant.py       our processes with one rule of theirs switched off, to prove the checker
"""
