"""Photos streamed from the disk: sets that are too large, or of too many sizes, to lie in memory as one tensor.

items    where the encoded photos are: files, or rows of Parquet files
views    what training and testing see of a photo
reader   one photo: decoded, counted if it cannot be, remembered if there is room
source   the split that the rest of the library works with
load     `photos:PATH?size=N`
"""
