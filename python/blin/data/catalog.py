"""Public datasets that blin can fetch by name: where they are, their checksums and their terms.

The files belong to their publishers; blin neither contains nor redistributes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

_MOVIELENS = "https://files.grouplens.org/datasets/movielens"
_MOVIELENS_TERMS = (
    "GroupLens: research use only, no redistribution and no commercial use without permission; "
    "cite Harper & Konstan 2015 (https://doi.org/10.1145/2827872)"
)
_S3REC = (
    "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec"
    "/2a81540ae18615d88ef88227b0c066e5b74781e5/data"
)
_AMAZON_TERMS = "Amazon reviews 2014: for research, no explicit licence; cite McAuley et al. 2015"
_YELP_TERMS = (
    "Yelp Open Dataset: academic and personal use under Yelp's own terms, no redistribution"
)


@dataclass(frozen=True)
class CatalogEntry:
    """A public dataset: one file, or one member of a zip archive."""

    name: str
    summary: str
    url: str
    sha256: str
    num_bytes: int
    terms: str
    member: str | None = None

    @property
    def host(self) -> str:
        """The server that holds the file."""
        return urlsplit(self.url).hostname or ""

    @property
    def file_name(self) -> str:
        """What the downloaded file is called."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def log_name(self) -> str:
        """What the interaction log is called: the file, or the archive's member."""
        return PurePosixPath(self.member).name if self.member else self.file_name


DATASETS = {
    entry.name: entry
    for entry in (
        CatalogEntry(
            name="ml-100k",
            summary="MovieLens: 100,000 ratings of 1,682 films by 943 users",
            url=f"{_MOVIELENS}/ml-100k.zip",
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            num_bytes=4_924_029,
            terms=_MOVIELENS_TERMS,
            member="ml-100k/u.data",
        ),
        CatalogEntry(
            name="ml-1m",
            summary="MovieLens: 1,000,209 ratings of 3,706 films by 6,040 users",
            url=f"{_MOVIELENS}/ml-1m.zip",
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            num_bytes=5_917_549,
            terms=_MOVIELENS_TERMS,
            member="ml-1m/ratings.dat",
        ),
        CatalogEntry(
            name="ml-20m",
            summary="MovieLens: 20,000,263 ratings of 26,744 films by 138,493 users",
            url=f"{_MOVIELENS}/ml-20m.zip",
            sha256="96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            num_bytes=198_702_078,
            terms=_MOVIELENS_TERMS,
            member="ml-20m/ratings.csv",
        ),
        CatalogEntry(
            name="beauty",
            summary="Amazon Beauty, 5-core: 198,502 reviews of 12,101 products by 22,363 users",
            url=f"{_S3REC}/Beauty.txt",
            sha256="226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
            num_bytes=1_090_094,
            terms=_AMAZON_TERMS,
        ),
        CatalogEntry(
            name="sports",
            summary="Amazon Sports, 5-core: 296,337 reviews of 18,357 products by 35,598 users",
            url=f"{_S3REC}/Sports_and_Outdoors.txt",
            sha256="2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
            num_bytes=1_707_483,
            terms=_AMAZON_TERMS,
        ),
        CatalogEntry(
            name="yelp",
            summary="Yelp 2019, 5-core: 316,354 reviews of 20,033 places by 30,431 users",
            url=f"{_S3REC}/Yelp.txt",
            sha256="724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed",
            num_bytes=1_814_224,
            terms=_YELP_TERMS,
        ),
    )
}
