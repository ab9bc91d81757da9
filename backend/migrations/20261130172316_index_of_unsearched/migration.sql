-- CreateIndex
CREATE INDEX CONCURRENTLY IF NOT EXISTS "sessions_unsearched_since_idx" ON "sessions"("unsearched_since");
