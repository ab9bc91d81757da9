-- CreateTable
CREATE TABLE "files" (
    "id" TEXT NOT NULL,
    "user_id" TEXT,
    "quota_key" TEXT NOT NULL,
    "session_id" TEXT,
    "media_type" TEXT NOT NULL,
    "filename" TEXT NOT NULL,
    "size" INTEGER NOT NULL,
    "pages" INTEGER NOT NULL DEFAULT 0,
    "sha256" TEXT NOT NULL,
    "source_sha256" TEXT NOT NULL,
    "link_key" TEXT NOT NULL,
    "upload_key" TEXT,
    "expires_at" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "files_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "files_session_id_idx" ON "files"("session_id");

-- CreateIndex
CREATE INDEX "files_user_id_idx" ON "files"("user_id");

-- CreateIndex
CREATE INDEX "files_expires_at_idx" ON "files"("expires_at");

-- CreateIndex
CREATE UNIQUE INDEX "files_quota_key_upload_key_key" ON "files"("quota_key", "upload_key");

