-- DropIndex
DROP INDEX "files_session_id_idx";

-- AlterTable
ALTER TABLE "files" ADD COLUMN     "path" TEXT;

-- CreateIndex
CREATE UNIQUE INDEX "files_session_id_path_key" ON "files"("session_id", "path");

