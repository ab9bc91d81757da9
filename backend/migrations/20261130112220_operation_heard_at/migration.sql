-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "heard_at" TIMESTAMPTZ(6);

