-- CreateTable
CREATE TABLE "summaries" (
    "session_id" TEXT NOT NULL,
    "through" INTEGER NOT NULL,
    "text" TEXT,
    "calls" TEXT[],
    "messages" INTEGER NOT NULL,
    "attempts" INTEGER NOT NULL DEFAULT 1,
    "claimed_until" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "summaries_pkey" PRIMARY KEY ("session_id","through")
);

-- AddForeignKey
ALTER TABLE "summaries" ADD CONSTRAINT "summaries_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

