"""The folders of the signed-in user."""

from __future__ import annotations

from fastapi import APIRouter, Response

from backend.api.conversation_schemas import FolderIn, FolderList, FolderOut
from backend.api.deps import AFolder, AppState, AUser, FoldersUser
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.chat.store.conversations import folders
from backend.errors import ValidationFailed

router = APIRouter(
    prefix="/folders", tags=["sessions"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
_BODY = responses(400, 408, 415)


@router.get("")
async def list_folders(api: AppState, user_id: AUser) -> FolderList:
    """Lists the folders of the signed-in user by name. There are at most 100."""
    async with api.resources.database.connection() as c:
        return FolderList(folders=[FolderOut.of(one) for one in await folders.list_folders(c, user_id)])


@router.post(
    "",
    responses={201: {"model": FolderOut, "description": "A folder was created."}, **_BODY, **responses(429)},
)
async def make_folder(api: AppState, user_id: AUser, response: Response, new: FolderIn) -> FolderOut:
    """Creates a folder and answers 201. If the user has a folder of this name, changes nothing and answers 200."""
    async with api.resources.database.transaction() as c:
        folder, is_new = await folders.make_folder(c, user_id, _name(new))
    response.status_code = 201 if is_new else 200
    return FolderOut.of(folder)


@router.patch("/{folder_id}", responses={**_BODY, **responses(404, 409)})
async def rename_folder(api: AppState, user_id: FoldersUser, folder_id: AFolder, new: FolderIn) -> FolderOut:
    """Renames a folder. Answers 409 `folder_exists` if another one has the name."""
    async with api.resources.database.connection() as c:
        return FolderOut.of(await folders.rename_folder(c, user_id, folder_id, _name(new)))


@router.delete("/{folder_id}", status_code=204, responses=responses(404))
async def delete_folder(api: AppState, user_id: FoldersUser, folder_id: AFolder) -> None:
    """Deletes a folder. Its sessions stay, and are in no folder then."""
    async with api.resources.database.transaction() as c:
        await folders.delete_folder(c, user_id, folder_id)


def _name(new: FolderIn) -> str:
    name = " ".join(new.name.split())
    if not name:
        raise ValidationFailed("The name has no text.")
    return name
