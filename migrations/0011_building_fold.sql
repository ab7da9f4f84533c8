-- Which fold an unfinished rebuild was begun with: rows of two programs that fold differently must not be mixed.

ALTER TABLE projections ADD COLUMN building_fold text;
