"""A synthetic set of interactions: sequences of item ids, for docs/catalogues.md.

python scripts/catalogue_interactions.py data/clicks.parquet

Items belong to topics and have a popularity by Zipf's law. Each user likes a few topics. The next
item is one of a few that follow the last one (a Markov step), or else one of a topic that the user
likes, by its popularity. Printed beside: what is reached by the most popular items, and by an
oracle that knows all of this and each user's topics, of the last item of every sequence.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

TOPICS, LIKED, FOLLOWERS = 100, 3, 4
MARKOV = 0.6  # the share of Markov steps
SHORTEST, LONGEST = 5, 40  # items of a sequence


class World:
    """Who likes what, and what follows what.

    Shapes: V items, G topics, L liked topics of each of U users, F followers of an item.
    """

    def __init__(self, num_items: int, num_users: int, seed: int) -> None:
        self.draw = draw = np.random.default_rng(seed)
        popularity_V = draw.permutation(1.0 / np.arange(1, num_items + 1))
        topic_V = draw.integers(TOPICS, size=num_items)
        self.by_topic_V = np.argsort(topic_V, kind="stable")  # items in the order of their topics
        self.first_G = np.searchsorted(topic_V[self.by_topic_V], np.arange(TOPICS + 1))
        self.cumulative = np.append(0.0, np.cumsum(popularity_V[self.by_topic_V]))
        self.liked_UL = draw.integers(TOPICS, size=(num_users, LIKED))
        self.share_UL = draw.dirichlet(np.ones(LIKED), size=num_users)
        # Followers are of the item's topic, popular ones more often; the first is the likeliest.
        self.follower_VF = np.stack([self.of_topics(topic_V) for _ in range(FOLLOWERS)], axis=1)
        self.step_F = 0.5 ** np.arange(FOLLOWERS) / (0.5 ** np.arange(FOLLOWERS)).sum()

    def of_topics(self, topics: np.ndarray) -> np.ndarray:
        """An item of each topic, by popularity."""
        low, high = (self.cumulative[self.first_G[topics + more]] for more in (0, 1))
        where = low + self.draw.random(len(topics)) * (high - low)
        return self.by_topic_V[np.searchsorted(self.cumulative, where, side="right") - 1]

    def liked_items(self) -> np.ndarray:
        """An item that each user likes."""
        users = np.arange(len(self.liked_UL))
        which = (self.draw.random((len(users), 1)) > self.share_UL.cumsum(axis=1)).sum(axis=1)
        return self.of_topics(self.liked_UL[users, which.clip(max=LIKED - 1)])

    def sequences(self) -> np.ndarray:
        """Items of all users, [U, LONGEST]."""
        items = [self.liked_items()]
        for _ in range(LONGEST - 1):
            which = self.draw.choice(FOLLOWERS, p=self.step_F, size=len(items[-1]))
            is_step = self.draw.random(len(items[-1])) < MARKOV
            items.append(np.where(is_step, self.follower_VF[items[-1], which], self.liked_items()))
        return np.stack(items, axis=1)

    def oracle(self, user: int, last: int, k: int) -> np.ndarray:
        """The k likeliest items after the last one."""
        chance_V = np.zeros(len(self.by_topic_V))
        np.add.at(chance_V, self.follower_VF[last], MARKOV * self.step_F)
        weights = np.diff(self.cumulative)
        for topic, share in zip(self.liked_UL[user], self.share_UL[user], strict=True):
            part = slice(self.first_G[topic], self.first_G[topic + 1])
            chance = (1 - MARKOV) * share * weights[part] / weights[part].sum()
            np.add.at(chance_V, self.by_topic_V[part], chance)
        return np.argpartition(-chance_V, k)[:k]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    world = World(options.items, options.users, options.seed)
    item_UT = world.sequences()
    length_U = world.draw.integers(SHORTEST, LONGEST + 1, size=options.users)
    sequences = [row[:length] for row, length in zip(item_UT, length_U, strict=True)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"items": sequences}), options.output)

    counts = np.bincount(np.concatenate([s[:-1] for s in sequences]), minlength=options.items)
    popular = set(np.argsort(-counts)[:10].tolist())
    sample = range(0, options.users, max(1, options.users // 4000))
    found = [int(sequences[u][-1]) in world.oracle(u, sequences[u][-2], 10) for u in sample]
    print(f"{options.output}: {options.users:,} sequences, {sum(map(len, sequences)):,} items,")
    print(f"{(counts > 0).sum():,} of {options.items:,} items occur")
    print(
        f"HR@10 of the 10 most popular: {np.mean([int(s[-1]) in popular for s in sequences]):.4f}"
    )
    print(f"HR@10 of an oracle: {np.mean(found):.4f} of {len(found):,} sequences")


if __name__ == "__main__":
    main()
