import pytest

from .stories import INFERENCE, WEBSITE, Story


@pytest.fixture(params=[WEBSITE, INFERENCE], ids=lambda story: story.binding.api)
def story(request: pytest.FixtureRequest) -> Story:
    """The beginnings of a story, over each of the two bindings."""
    story: Story = request.param
    return story
