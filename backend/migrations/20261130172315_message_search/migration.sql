-- AlterTable
-- Sessions of before have messages that the search does not know. A default of now() does not rewrite the table.
ALTER TABLE "sessions" ADD COLUMN     "searched_sequence" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "unsearched_since" TIMESTAMPTZ(6) DEFAULT now();
ALTER TABLE "sessions" ALTER COLUMN "unsearched_since" DROP DEFAULT;

-- CreateTable
CREATE TABLE "search_entries" (
    "session_id" TEXT NOT NULL,
    "sequence" INTEGER NOT NULL,
    "user_id" TEXT NOT NULL,
    "words" tsvector NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "search_entries_pkey" PRIMARY KEY ("session_id","sequence")
);

-- CreateIndex
CREATE INDEX "search_entries_words_idx" ON "search_entries" USING GIN ("words");

-- CreateIndex
CREATE INDEX "search_entries_user_id_created_at_idx" ON "search_entries"("user_id", "created_at");

-- AddForeignKey
ALTER TABLE "search_entries" ADD CONSTRAINT "search_entries_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

