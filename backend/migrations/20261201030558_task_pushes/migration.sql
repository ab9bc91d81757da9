-- AlterTable
ALTER TABLE "webhook_endpoints" ADD COLUMN     "credentials" TEXT,
ADD COLUMN     "push_id" TEXT,
ADD COLUMN     "task_id" TEXT,
ADD COLUMN     "token" TEXT;

-- CreateIndex
CREATE UNIQUE INDEX "webhook_endpoints_task_id_push_id_key" ON "webhook_endpoints"("task_id", "push_id");

-- AddForeignKey
ALTER TABLE "webhook_endpoints" ADD CONSTRAINT "webhook_endpoints_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

