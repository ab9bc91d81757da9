"""The code that the API and the executor share: sessions, tasks, operations, their queue and their streams."""
