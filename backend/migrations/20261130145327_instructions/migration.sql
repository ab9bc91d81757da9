-- AlterTable
ALTER TABLE "sessions" ADD COLUMN     "instructions" TEXT;

-- CreateTable
CREATE TABLE "user_instructions" (
    "user_id" TEXT NOT NULL,
    "text" TEXT NOT NULL,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "user_instructions_pkey" PRIMARY KEY ("user_id")
);

