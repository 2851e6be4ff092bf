import pytest
from every_form import Made, make_every_form

from preprocessing import storage


@pytest.fixture(scope="session")
def every_form(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The whole road with one worker, once for all tests; they write elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "synchronize", lambda descriptor: None)
        return make_every_form(tmp_path_factory.mktemp("every_form"))
