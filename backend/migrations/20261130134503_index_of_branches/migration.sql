-- CreateIndex
CREATE INDEX CONCURRENTLY IF NOT EXISTS "tasks_session_id_parent_sequence_idx" ON "tasks"("session_id", "parent_sequence");
