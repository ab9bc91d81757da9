-- CreateIndex
CREATE INDEX CONCURRENTLY IF NOT EXISTS "sessions_folder_id_idx" ON "sessions"("folder_id");
