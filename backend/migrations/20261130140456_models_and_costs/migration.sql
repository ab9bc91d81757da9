-- AlterTable
ALTER TABLE "sessions" ADD COLUMN     "effort" TEXT,
ADD COLUMN     "model" TEXT;

-- AlterTable
ALTER TABLE "usage" ADD COLUMN     "cost" DOUBLE PRECISION,
ADD COLUMN     "currency" TEXT,
ADD COLUMN     "model" TEXT;

