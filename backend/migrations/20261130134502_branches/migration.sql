-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "parent_sequence" INTEGER;

-- Tasks that exist keep NULL: one after the other. If messages of their session are superseded, they get their parents
-- when the session is read or changed for the first time (`store/branches.py`, `adopt`).
