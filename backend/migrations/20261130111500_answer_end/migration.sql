-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "answer_end" JSONB;
